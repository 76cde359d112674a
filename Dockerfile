# One image with the three programs: producer (the default), consumer and webmon.
#
#   docker build -t webmon .
#   docker run --rm webmon webmon check https://example.org/

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# Symbols stay, for the names in a panic's backtrace; line tables would triple the programs.
ENV CARGO_PROFILE_RELEASE_DEBUG=false \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    CARGO_TERM_PROGRESS_WHEN=never

# The dependencies alone, with empty programs: this layer stays valid until a manifest changes.
# A `[[bench]]` of the manifest must have its file.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src/bin benches \
 && for program in producer consumer webmon; do printf '//! Empty.\nfn main() {}\n' >"src/bin/$program.rs"; done \
 && echo '//! Empty.' >src/lib.rs \
 && sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml | while read -r name; do touch "benches/$name.rs"; done \
 && cargo build --release --locked --bins \
 && cargo clean --release --locked -p webmon \
 && rm -rf src benches

COPY . .
RUN cargo build --release --locked --bins \
 && for program in producer consumer webmon; do \
      install -d /out/bash && target/release/webmon completions bash --program "$program" >"/out/bash/$program"; \
    done \
 && target/release/webmon man --dir /out/man1

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/webmon
COPY --from=build /src/target/release/producer /src/target/release/consumer /src/target/release/webmon /usr/local/bin/
COPY --from=build /out/bash /usr/share/bash-completion/completions/
COPY --from=build /out/man1 /usr/share/man/man1/
COPY config.yaml /etc/webmon/config.yaml

# Inside a container the listeners must be reachable from its network, and the spool must lie on a volume.
ENV WEBMON_CONFIG_FILE=/etc/webmon/config.yaml \
    WEBMON_PRODUCER_SPOOL_DIR=/var/lib/webmon/spool \
    WEBMON_PRODUCER_LISTEN=0.0.0.0:9464 \
    WEBMON_CONSUMER_LISTEN=0.0.0.0:9465
USER 10001:10001
# Where config.yaml and, if mounted, .env are looked for: readable whatever is mounted on the spool.
WORKDIR /etc/webmon
VOLUME /var/lib/webmon
EXPOSE 9464 9465 8080

# Alive, not ready: a daemon waits out an outage of its database or broker, and restarting it then
# would only throw away what it knows. Which of the three runs here shows by its port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD for port in 9464 9465 8080; do webmon healthcheck --url http://127.0.0.1:$port/livez && exit; done; exit 1
CMD ["producer"]

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="webmon" \
      org.opencontainers.image.description="Website monitor: checks many sites on schedule, through Kafka, into PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
