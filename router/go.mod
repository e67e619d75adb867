module github.com/halley-im/halley/router

go 1.26.0
