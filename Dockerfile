FROM python:3.11-slim-bookworm AS build
COPY requirements.lock .
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /srv --shell /usr/sbin/nologin headroom \
    && install --directory --owner headroom /certificates
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /srv
COPY alembic.ini ./
COPY migrations migrations
COPY deploy/__init__.py deploy/certificate.py deploy/gunicorn.conf.py deploy/
COPY app app
# The file system is read-only at run time: compiled once, here.
RUN python -m compileall -q app deploy migrations
USER headroom
ENV BIND=0.0.0.0:8000
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["gunicorn", "-c", "deploy/gunicorn.conf.py"]
