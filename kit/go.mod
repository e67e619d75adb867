module github.com/halley-im/halley/kit

go 1.26.0
