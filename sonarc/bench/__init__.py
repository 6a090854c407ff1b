"""Benchmarks: a target measures and writes `bench/<name>.json`; `--check` compares with what was wanted.

python -m sonarc.bench            # every target
python -m sonarc.bench inference  # one
python -m sonarc.bench --check    # exit 1 where a committed figure misses what was wanted
"""
