// Goroutines: net/http as server and client, and a pool of connections to Redis.
//
// usage: live PORT STOCK PRICE SHIP REDIS
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

var (
	client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	idle   = make(chan net.Conn, 256)
)

func post(port, path, body string) error {
	response, err := client.Post("http://127.0.0.1:"+port+path, "text/plain", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func redisGet(port, key string) error {
	var connection net.Conn
	select {
	case connection = <-idle:
	default:
		var err error
		if connection, err = net.Dial("tcp", "127.0.0.1:"+port); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(connection, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key); err != nil {
		return err
	}
	// Nobody stores anything: the reply is nil.
	if _, err := io.ReadFull(connection, make([]byte, len("$-1\r\n"))); err != nil {
		return err
	}
	select {
	case idle <- connection:
	default:
		return connection.Close()
	}
	return nil
}

func serve(ports []string, body string) error {
	stock, price, ship, redis := ports[0], ports[1], ports[2], ports[3]
	if err := post(stock, "/stock", body); err != nil {
		return err
	}
	var both sync.WaitGroup
	var priceError, redisError error
	both.Add(2)
	go func() { defer both.Done(); priceError = post(price, "/price", body) }()
	go func() { defer both.Done(); redisError = redisGet(redis, "key:"+body) }()
	both.Wait()
	if priceError != nil || redisError != nil {
		return fmt.Errorf("price: %w, redis: %w", priceError, redisError)
	}
	number, err := strconv.Atoi(body)
	if err == nil && number%2 == 0 {
		err = post(ship, "/ship", body)
	}
	return err
}

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = serve(os.Args[2:6], string(body))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], handler))
}
