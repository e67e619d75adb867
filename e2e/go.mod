module github.com/halley-im/halley/e2e

go 1.26.0

require (
	github.com/google/uuid v1.6.0
	github.com/halley-im/halley/client v0.0.0
	github.com/halley-im/halley/proto v0.0.0
	github.com/redis/go-redis/v9 v9.23.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/grpc v1.85.0 // indirect
)

replace (
	github.com/halley-im/halley/client => ../client
	github.com/halley-im/halley/proto => ../proto
)
