module github.com/halley-im/halley/e2e

go 1.26.0
