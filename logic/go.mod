module github.com/halley-im/halley/logic

go 1.26.0
