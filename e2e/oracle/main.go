// hpa-oracle tells what the Horizontal Pod Autoscaler of Kubernetes decides: it reads cases, one JSON object a line, and prints one result line a case.
//
// It runs the controller of Kubernetes itself, over metrics APIs, listers and a clock that are made from the case. The version of Kubernetes is that of go.mod.
// A number that does not fit its integer becomes what Go makes of it on the machine at hand; Catamaran does as Go does on amd64, so the two are compared there.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

func main() {
	// The handlers sleep between errors, which would move the clock; the errors are in the results.
	utilruntime.ErrorHandlers = nil
	output := os.Stdout
	// A bubble with a clock of its own is to be had in a test only. What the test says about itself is no result.
	os.Stdout = os.Stderr
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "oracle", F: func(t *testing.T) {
		if err := decide(t, os.Stdin, output); err != nil {
			t.Fatal(err)
		}
	}}}, nil, nil)
}

func decide(t *testing.T, input io.Reader, output io.Writer) error {
	cases := json.NewDecoder(bufio.NewReaderSize(input, 1<<20))
	results := bufio.NewWriter(output)
	for number := 1; ; number++ {
		var c Case
		if err := cases.Decode(&c); errors.Is(err, io.EOF) {
			return results.Flush()
		} else if err != nil {
			return fmt.Errorf("case %d: %w", number, err)
		}
		if err := json.NewEncoder(results).Encode(run(t, &c)); err != nil {
			return err
		}
	}
}
