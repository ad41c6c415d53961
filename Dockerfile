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
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/boot-operator ./cmd/boot-operator \
    # The directory of the artifact store, for those who mount no volume there.
    && mkdir -p /out/store

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.source=https://github.com/boot-operator/boot-operator \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/boot-operator /boot-operator
COPY --from=build --chown=65532:65532 /out/store /var/lib/boot-operator
USER 65532:65532
# boot, boot over TLS, images, metrics, probes
EXPOSE 8082 8443 8083 8080 8081
ENTRYPOINT ["/boot-operator"]
