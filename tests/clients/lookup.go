// Looks a name up with Go's own resolver and connects to port 443.
package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	addresses, err := net.LookupHost(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(addresses)
	connection, err := net.DialTimeout("tcp", os.Args[1]+":443", 5*time.Second)
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	fmt.Println("connected to", connection.RemoteAddr())
}
