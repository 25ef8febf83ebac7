# One image for every mode. `docker compose up --build` starts a paper session of it; see compose.yaml.

FROM python:3.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/source
RUN python -m venv /srv/venv
# What we stand on comes first: an edit of ours leaves this layer as it is.
COPY pyproject.toml constraints.txt README.md ./
RUN /srv/venv/bin/pip install --constraint constraints.txt '.[live]'
COPY engine engine
COPY backtest backtest
COPY strategies strategies
COPY conf conf
RUN /srv/venv/bin/pip install --no-deps --force-reinstall .

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --home-dir /srv/tandem tandem
COPY --from=build /srv/venv /srv/venv
# MLflow and matplotlib keep small files at home, which has to be a place that we may write to.
ENV PATH=/srv/venv/bin:$PATH HOME=/srv/tandem/cache TANDEM_CACHE=/srv/tandem/cache TANDEM_DATA=/srv/tandem/data \
    PYTHONUNBUFFERED=1 MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
WORKDIR /srv/tandem
RUN mkdir cache data journals state mlflow outputs && chown -R 10001:10001 .
USER 10001
# Machine code is for the processor that builds: on another one it is compiled once more, into the volume of the cache.
# The sample market is made by a backtest: an image that cannot trade is none.
RUN tandem mode=compile && tandem mode=backtest strategy=market_making data=ticks report=false track=false
ENTRYPOINT ["tandem"]
CMD ["--help"]
