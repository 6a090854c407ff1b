"""The endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sonarc.contracts.config.base import NonNegative, Positive, PositiveFloat, Section


class ServeConfig(Section):
    host: str = "127.0.0.1"
    """Address the endpoint listens on."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8_420
    """Port; when it is taken the next free one is used, and said."""
    steps: Positive = 4
    """Steps of a request that asks for none."""
    max_batch: Positive = 8
    """Requests generated together."""
    batch_wait_s: NonNegative = 0.002
    """How long a request waits for company, seconds."""
    max_queued: Positive = 64
    """Requests waiting beyond this are refused with 429."""
    timeout_s: PositiveFloat = 60.0
    """Deadline of one request, seconds."""
    threads: Positive = 2
    """CPU threads of each generator replica."""
    gpus: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of a GPU that each generator replica reserves; 0: they run on the CPU; null: what there is, shared out."""
    replicas: Positive = 1
    """Generator replicas."""
    ingress_replicas: Positive = 1
    """Ingress replicas."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of the network's matrix products. In float32 a batch changes a clip far less, at a sixth of the
    speed on a CPU with bfloat16 units."""
    max_clips: Positive = 8
    """Most clips of one request: prompts times `n`."""
    max_upload_bytes: Positive = 32 * 1024 * 1024
    """Largest body with a sound to begin from, bytes."""
    upload_s: PositiveFloat = 30.0
    """Longest time a client may take to send its body, seconds."""
    log_prompts: bool = False
    """Write prompts to the log; otherwise they are never written."""
    keys_file: str = ""
    """File of hashed API keys, made by `sonarc keys`; else the environment's SONARC_SERVE_KEYS names one. With none,
    nobody needs a key."""
    requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """Clips a minute of a key that says nothing else; 0: any number."""
    concurrent_requests: Annotated[int, Field(ge=0)] = 0
    """Requests at one time of a key that says nothing else; 0: any number."""
    max_jobs: Positive = 100
    """Jobs kept, finished ones included."""
    job_ttl_s: PositiveFloat = 3_600.0
    """How long a finished job is kept, seconds."""
    job_timeout_s: PositiveFloat = 600.0
    """Deadline of a job, seconds."""
    follow_s: NonNegative = 0.0
    """How often the registry is asked whether its aliases have moved, seconds; 0: never, `sonarc serve` tells."""
    candidate_alias: str = "candidate"
    """Alias of the package that canary and shadow traffic goes to."""
    canary_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of unpinned requests that the candidate answers."""
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of unpinned requests that the candidate makes too, in spare time and for no one to hear."""
    canary_min_requests: Positive = 20
    """Requests of the candidate before it is judged."""
    canary_worse_errors: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How far its share of failures may exceed the champion's before it gets no more traffic."""
    canary_slower: Annotated[float, Field(ge=1)] = 1.5
    """How many times the champion's median time of generating it may take."""
