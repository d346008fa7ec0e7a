// coredns is CoreDNS with the plugins that a cluster's DNS needs here: names of Services, and nothing of any cloud.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func init() {
	// In the order in which they are asked.
	dnsserver.Directives = []string{"ready", "errors", "kubernetes"}
}

func main() { coremain.Run() }
