// Makes one system call many times from a goroutine and prints what one costs: ns, the best of five
// rounds. As `cost.c` does for threads.
//
// usage: cost go_tcp_write CALLS
package main

import (
	"bufio"
	"fmt"
	"log"
	"math"
	"net"
	"os"
	"strconv"
	"time"
)

const (
	rounds = 5
	bytes  = 128
	batch  = 64
)

func connectPair() (net.Conn, net.Conn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	server, err := listener.Accept()
	return client, server, err
}

// Writes a batch, then reads it, and counts the time of the writes.
func writesNs(client, server net.Conn, calls int) (float64, error) {
	buffer := make([]byte, bytes)
	spent := time.Duration(0)
	for done := 0; done < calls; done += batch {
		start := time.Now()
		for i := 0; i < batch; i++ {
			if _, err := client.Write(buffer); err != nil {
				return 0, err
			}
		}
		spent += time.Since(start)
		for read := 0; read < batch*bytes; {
			n, err := server.Read(buffer)
			if err != nil {
				return 0, err
			}
			read += n
		}
	}
	return float64(spent.Nanoseconds()) / float64(calls), nil
}

func main() {
	calls, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	client, server, err := connectPair()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(os.Getpid())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		log.Fatal(err)
	}
	best := math.Inf(1)
	for round := 0; round < rounds; round++ {
		ns, err := writesNs(client, server, calls)
		if err != nil {
			log.Fatal(err)
		}
		best = math.Min(best, ns)
	}
	fmt.Println(best)
}
