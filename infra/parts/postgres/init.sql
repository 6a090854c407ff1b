-- Run once, over an empty volume. Passwords come from the environment: they are in no argument and no file.
\getenv mlflow_user MLFLOW_USER
\getenv mlflow_password MLFLOW_PASSWORD
\getenv tuning_password TUNING_PASSWORD
CREATE ROLE :"mlflow_user" LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE mlflow OWNER :"mlflow_user";
CREATE DATABASE mlflow_auth OWNER :"mlflow_user";
CREATE ROLE tuning LOGIN PASSWORD :'tuning_password';
CREATE DATABASE tuning OWNER tuning;
REVOKE CONNECT ON DATABASE mlflow, mlflow_auth, tuning FROM PUBLIC;
