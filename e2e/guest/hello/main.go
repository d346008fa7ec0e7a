// hello prints a greeting and ends, or stays until it is told to end (--stay), as a replica of a workload does.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stay := flag.Bool("stay", false, "do not end before SIGTERM")
	flag.Parse()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	fmt.Println("Hello, world!")
	if *stay {
		<-signals
	}
}
