"""The playground without a server: a static page that runs an exported model in the browser."""
