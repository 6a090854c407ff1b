#!/bin/sh
# Make the environment of one role in /app, from the wheels mounted at /mnt, with the tools mounted at /srv.
set -eu
role="$1"
install() {
  # No bytecode here: below, all at once.
  /srv/bin/python "$(echo /mnt/wheels/pip-*.whl)/pip" --python /app/bin/python install --quiet --no-index \
    --no-cache-dir --no-compile --no-deps --find-links /mnt/wheels "$@"
}
python3 -m venv --without-pip /app
install --requirement "/mnt/requirements/$role.txt" sonarc
if [ -s "/mnt/requirements/$role-nodeps.txt" ]; then
  install --require-hashes --requirement "/mnt/requirements/$role-nodeps.txt"
fi
/srv/bin/python /mnt/sbom.py --python /app/bin/python --role "$role" --output /app/sbom.cdx.json
# A read-only root cannot keep bytecode, so it comes along; checked by nobody, as the times of files are not kept.
# Some packages carry files for other versions of Python, which do not compile: nothing imports those.
/app/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /app/lib || true
