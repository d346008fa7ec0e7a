package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The name of the virtio port that the harness gives to QEMU.
const port = "shell"

// A request is this in one line of JSON, and then `input` bytes for the command's standard input.
type request struct {
	ID      uint64 `json:"id"`
	Command string `json:"command"`
	Input   int64  `json:"input"`
	// After so many milliseconds the command is killed, with all that it started.
	Within int64 `json:"within"`
}

// An answer is this in one line of JSON, and then the bytes of both outputs.
type answer struct {
	ID uint64 `json:"id"`
	// The exit status; as in a shell 128 and more stand for the signal that ended it.
	Code     int  `json:"code"`
	TimedOut bool `json:"timedOut"`
	Stdout   int  `json:"stdout"`
	Stderr   int  `json:"stderr"`
}

// serveShell answers requests, each on its own, in the order in which they end.
func serveShell() {
	device, err := openPort()
	if err != nil {
		say("no shell: %v", err)
		return
	}
	input := bufio.NewReader(patient{device})
	var guard sync.Mutex
	for {
		line, err := input.ReadBytes('\n')
		var asked request
		if err == nil {
			err = json.Unmarshal(line, &asked)
		}
		var stdin *os.File
		if err == nil {
			stdin, err = keep(io.LimitReader(input, asked.Input))
		}
		if err != nil {
			say("the shell ends: %v", err)
			return
		}
		go func() {
			told, stdout, stderr := run(asked, stdin)
			told.Stdout, told.Stderr = len(stdout), len(stderr)
			head, _ := json.Marshal(told)
			guard.Lock()
			defer guard.Unlock()
			for _, part := range [][]byte{head, {'\n'}, stdout, stderr} {
				if _, err := device.Write(part); err != nil {
					say("the shell cannot answer: %v", err)
				}
			}
		}()
	}
}

func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if found, _ := os.ReadFile(name); strings.TrimSpace(string(found)) == port {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio port has the name %s", port)
}

// patient waits where the port says that there is nobody on the other side.
type patient struct{ from io.Reader }

func (p patient) Read(buffer []byte) (int, error) {
	for {
		read, err := p.from.Read(buffer)
		if read > 0 || (err != nil && err != io.EOF) {
			return read, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// keep puts what is read into a file without a name, to be read from its start.
func keep(from io.Reader) (*os.File, error) {
	file, err := os.CreateTemp("", "shell")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(file.Name())
	if _, err := io.Copy(file, from); err != nil {
		return nil, err
	}
	_, err = file.Seek(0, io.SeekStart)
	return file, err
}

// run runs the command of a request to its end.
func run(asked request, stdin *os.File) (told answer, stdout, stderr []byte) {
	told.ID = asked.ID
	defer stdin.Close()
	// Files and no pipes: a process that goes on in the background holds nothing up.
	out, err := keep(strings.NewReader(""))
	if err != nil {
		told.Code = 127
		return told, nil, []byte(err.Error())
	}
	defer out.Close()
	errors, err := keep(strings.NewReader(""))
	if err != nil {
		told.Code = 127
		return told, nil, []byte(err.Error())
	}
	defer errors.Close()
	command := exec.Command("/bin/sh", "-c", asked.Command)
	command.Stdin, command.Stdout, command.Stderr = stdin, out, errors
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Dir = "/root"
	ended, err := start(command)
	if err != nil {
		told.Code = 127
		return told, nil, []byte(err.Error())
	}
	var status unix.WaitStatus
	select {
	case status = <-ended:
	case <-time.After(time.Duration(asked.Within) * time.Millisecond):
		told.TimedOut = true
		_ = unix.Kill(-command.Process.Pid, unix.SIGKILL)
		status = <-ended
	}
	_ = command.Process.Release()
	told.Code = status.ExitStatus()
	if status.Signaled() {
		told.Code = 128 + int(status.Signal())
	}
	return told, content(out), content(errors)
}

func content(file *os.File) []byte {
	_, _ = file.Seek(0, io.SeekStart)
	all, _ := io.ReadAll(file)
	return all
}
