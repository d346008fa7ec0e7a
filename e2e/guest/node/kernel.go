package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroups = "/sys/fs/cgroup"

// setUpKernel mounts what is not mounted yet, and makes of the kernel what a Kubernetes node needs.
func setUpKernel() error {
	for _, m := range []mount{
		{"devpts", "/dev/pts", "devpts", 0, "gid=5,mode=620,ptmxmode=666"},
		{"shm", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"tmp", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"cgroup2", cgroups, "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate"},
		{"bpf", "/sys/fs/bpf", "bpf", 0, ""},
	} {
		if err := m.make(); err != nil {
			return err
		}
	}
	// The kubelet hands mounts on to containers, and from them.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	if err := delegateControllers(cgroups); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"net/ipv4/ip_forward": "1",
		// Pods have addresses of the node's own network; the node answers for them, so that no address has to be translated.
		"net/ipv4/conf/all/proxy_arp": "1",
		// The values that the kubelet asks for.
		"vm/overcommit_memory":          "1",
		"vm/panic_on_oom":               "0",
		"kernel/panic":                  "10",
		"kernel/panic_on_oops":          "1",
		"fs/inotify/max_user_instances": "8192",
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return setUpNode()
}

// delegateControllers lets the children of a cgroup use every controller that it has.
func delegateControllers(folder string) error {
	controllers, err := os.ReadFile(folder + "/cgroup.controllers")
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(controllers)) {
		if err := os.WriteFile(folder+"/cgroup.subtree_control", []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("controller %s: %w", controller, err)
		}
	}
	return nil
}

// setUpNode applies what differs between nodes: a shell script of the harness, with names, addresses and disks.
func setUpNode() error {
	script := seed + "/setup"
	if _, err := os.Stat(script); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	output, err := exec.Command("/bin/sh", "-eu", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}
