// GETs $URL/text with the client of the standard library, or POSTs: URL BODY [SECONDS].
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		post(os.Args[1:])
		return
	}
	answer, err := http.Get(os.Getenv("URL") + "/text")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	io.Copy(os.Stdout, answer.Body)
}

// Says the status and the answer.
func post(words []string) {
	client := http.Client{}
	if len(words) > 2 {
		client.Timeout, _ = time.ParseDuration(words[2] + "s")
	}
	answer, err := client.Post(words[0], "text/plain", strings.NewReader(words[1]))
	if failed, ok := err.(*url.Error); ok && failed.Timeout() {
		fmt.Println("left")
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(answer.StatusCode, string(body))
}
