module github.com/halley-im/halley/web

go 1.26.0

ignore ./node_modules
