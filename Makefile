# Thin names for what the go tool does; .ci/run is the whole check.
.PHONY: build test race fuzz bench ci
build: ; CGO_ENABLED=0 go build -trimpath -o hvnet ./cmd/hvnet
test:  ; go test ./...
race:  ; go test -race ./...
fuzz:  ; go run ./internal/fuzzall -time 10s
bench: ; go test -run '^$$' -bench . -benchmem ./ring ./netvsc ./netvsp ./vswitch ./offload ./rndis ./internal/e2e
ci:    ; bash .ci/run
