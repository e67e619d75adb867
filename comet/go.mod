module github.com/halley-im/halley/comet

go 1.26.0
