# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY api api
COPY cmd cmd
COPY internal internal
ARG TARGETOS TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/... \
    # The directory of the artifact store, for those who mount no volume there.
    && mkdir -p /out/store

# The network boot programs that machines are given over TFTP. They are programs
# for the machines, whatever this image runs on.
FROM --platform=$BUILDPLATFORM debian:12-slim AS ipxe
RUN apt-get update && apt-get install -y --no-install-recommends ipxe \
    # Some are links to /boot.
    && mkdir /programs && cp -L /usr/lib/ipxe/ipxe.efi /usr/lib/ipxe/snponly.efi /usr/lib/ipxe/undionly.kpxe /programs/

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.source=https://github.com/boot-operator/boot-operator \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/boot-operator /out/bootctl /
COPY --from=ipxe /programs/ /usr/lib/ipxe/
COPY --from=build --chown=65532:65532 /out/store /var/lib/boot-operator
USER 65532:65532
# boot, boot over TLS, images, metrics, probes; with --netboot-interface DHCP, TFTP, PXE
EXPOSE 8082 8443 8083 8080 8081 67/udp 69/udp 4011/udp
ENTRYPOINT ["/boot-operator"]
