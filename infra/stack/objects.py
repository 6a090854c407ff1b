"""The bucket: rclone's S3 server over a folder."""

from __future__ import annotations

from infra.stack.layout import Layout
from infra.stack.ports import listens
from infra.stack.service import Service
from sonarc.bench.s3_server import BUCKET, server_command, server_environment


def objects(layout: Layout) -> Service:
    """The server over `<data>/objects`; a folder there is a bucket."""
    bucket, port = layout.bucket, layout.ports["objects"]
    return Service(
        "objects",
        tuple(server_command(bucket.folder, port)),
        ready=lambda: listens(port),
        environment=layout.bare() | server_environment(bucket.key, bucket.secret),
        address=f"{bucket.endpoint} (bucket {BUCKET})",
        prepare=lambda: (bucket.folder / BUCKET).mkdir(parents=True, exist_ok=True),
    )
