module github.com/halley-im/halley/job

go 1.26.0
