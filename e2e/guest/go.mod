module github.com/catamaran-dev/catamaran/e2e/guest

go 1.26.0

require golang.org/x/sys v0.46.0
