"""The image components run in on a cluster. The local runner ignores it."""

from sonarc import __version__

IMAGE = f"sonarc/pipeline:{__version__}"
