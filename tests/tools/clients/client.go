// Uploads as its users do, then asks for something else: prints both statuses.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

func status(client *http.Client, method, url, account string, body io.Reader) int {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	request.Header.Set("X-Ads-Account", account)
	response, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		panic(err)
	}
	return response.StatusCode
}

func main() {
	size, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	client := &http.Client{Timeout: 20 * time.Second}
	first := status(client, "POST", os.Args[1], "acme", bytes.NewReader(make([]byte, size)))
	fmt.Println(first, status(client, "GET", os.Args[1], "nobody", nil))
}
