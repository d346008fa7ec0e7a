package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// The kernel modules in the initial RAM disk, and the order in which they load.
	modules     = "/modules"
	moduleOrder = "/modules/order"
	disk        = "/dev/vda"
	newRoot     = "/newroot"
	// How long the kernel may take to find the disk.
	diskWithin = 30 * time.Second
)

// changeToDisk makes the disk the root and goes on as the program there. It returns only errors.
func changeToDisk() error {
	for _, m := range []mount{{"proc", "/proc", "proc", 0, ""}, {"sys", "/sys", "sysfs", 0, ""}, {"dev", "/dev", "devtmpfs", 0, ""}} {
		if err := m.make(); err != nil {
			return err
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	deadline := time.Now().Add(diskWithin)
	for {
		if _, err := os.Stat(disk); err == nil {
			break
		} else if time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := (mount{disk, newRoot, "ext4", unix.MS_NOATIME, ""}).make(); err != nil {
		return err
	}
	if err := (mount{"run", newRoot + "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"}).make(); err != nil {
		return err
	}
	// What the RAM disk holds of this node goes along in memory; the disk stays as it is for the next one.
	if err := os.CopyFS(newRoot+seed, os.DirFS("/seed")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, folder := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(folder, newRoot+folder, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s: %w", folder, err)
		}
	}
	// The RAM disk cannot be unmounted; emptied, it costs nothing.
	if err := os.RemoveAll(modules); err != nil {
		return err
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Exec("/sbin/node", []string{"/sbin/node"}, os.Environ())
}

// loadModules loads what the harness chose, in its order: dependencies come first.
func loadModules() error {
	order, err := os.ReadFile(moduleOrder)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		file, err := os.Open(filepath.Join(modules, name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(file.Fd()), "", 0)
		_ = file.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) make() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mounting %s: %w", m.target, err)
	}
	return nil
}
