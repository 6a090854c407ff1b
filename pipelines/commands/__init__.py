"""Groups of the command line's commands, and what all commands share."""
