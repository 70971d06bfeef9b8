# One image holds all programs: the sidecar reads the server's symbols from its own copy.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p brisq-server -p brisq-profiler -p brisq-operator -p brisq --features brisq/cluster \
 && mkdir /out \
 && cp target/release/brisq-server /out/ \
 && for program in brisq-profiler brisq-operator brisq; do strip --strip-debug -o /out/$program target/release/$program; done

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /
USER 65532:65532
