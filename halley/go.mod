module github.com/halley-im/halley/halley

go 1.26.0
