package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
)

func main() {
	results := make(chan int)
	for n := 0; n < 100; n++ {
		go func(n int) { results <- n }(n)
	}
	sum := 0
	for n := 0; n < 100; n++ {
		sum += <-results
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello from Go")
	}))
	answer, err := http.Get("http://" + listener.Addr().String() + "/")
	if err != nil {
		panic(err)
	}
	page, _ := io.ReadAll(answer.Body)
	fmt.Printf("sum %d, page: %s\n", sum, page)
}
