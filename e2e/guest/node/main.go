// node is process 1 of the guest. From the initial RAM disk it loads modules and changes to the disk; there it sets up the kernel, runs the
// services of a Kubernetes node and answers the shell of the tests.
package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Where the files of this node are: put there from the initial RAM disk, which the harness makes for each boot.
const seed = "/run/node"

func main() {
	// The kernel gives process 1 none.
	_ = os.Setenv("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	say("started")
	// It is the same program in both places; only the initial RAM disk has this folder.
	if _, err := os.Stat(modules); err == nil {
		fail("cannot change to the disk", changeToDisk())
	}
	fail("cannot set up the kernel", setUpKernel())
	shutdown := make(chan os.Signal, 1)
	// What `poweroff` of busybox sends to process 1.
	signal.Notify(shutdown, unix.SIGUSR2)
	go reap()
	services := startServices()
	go serveShell()
	say("up")
	<-shutdown
	services.stop()
	say("down")
	unix.Sync()
	// A disk that was written to is whole afterwards.
	_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// say writes to the console, which the harness keeps as a log; it waits for some of these lines.
func say(format string, arguments ...any) {
	uptime, _ := os.ReadFile("/proc/uptime")
	var seconds float64
	_, _ = fmt.Sscan(string(uptime), &seconds)
	fmt.Printf("node: %.2f: %s\n", seconds, fmt.Sprintf(format, arguments...))
}

// fail ends the guest, and QEMU with it.
func fail(what string, err error) {
	if err != nil {
		say("%s: %v", what, err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}
