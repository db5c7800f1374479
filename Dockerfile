# Workers and page: this program with its shipped checkpoint; nothing is downloaded when it runs.
FROM python:3.11.13-slim-bookworm

RUN useradd --create-home --uid 10001 visxp
WORKDIR /opt/visxp
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY visxp_search ./visxp_search
COPY indexer ./indexer
COPY training ./training
COPY webui ./webui
RUN pip install --no-cache-dir --constraint requirements.lock '.[ray,web]'

USER visxp
WORKDIR /home/visxp
ENV PYTHONUNBUFFERED=1
CMD ["visxp", "--help"]
