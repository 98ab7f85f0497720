// Creates ConfigMaps of 1 KiB through client-go in protobuf: so many clients, each on a connection of its own, for so
// many seconds. Prints rate and latencies in milliseconds as JSON. Called by the benchmark "creates".
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the administrator's kubeconfig")
	clients := flag.Int("clients", 64, "clients at a time")
	seconds := flag.Int("seconds", 10, "how long")
	flag.Parse()
	if err := run(*kubeconfig, *clients, time.Duration(*seconds)*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(kubeconfig string, clients int, duration time.Duration) error {
	var sets []*kubernetes.Clientset
	for range clients {
		set, err := connect(kubeconfig)
		if err != nil {
			return err
		}
		// The handshake is not what is measured.
		if _, err := set.Discovery().ServerVersion(); err != nil {
			return err
		}
		sets = append(sets, set)
	}
	times := make([][]time.Duration, clients)
	errs := make([]error, clients)
	value := strings.Repeat("x", 1024)
	var all sync.WaitGroup
	began := time.Now()
	for i, set := range sets {
		all.Go(func() {
			for time.Since(began) < duration && errs[i] == nil {
				object := &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("go-%d-%d", i, len(times[i]))},
					Data:       map[string]string{"value": value},
				}
				sent := time.Now()
				_, errs[i] = set.CoreV1().ConfigMaps("default").Create(context.Background(), object, metav1.CreateOptions{})
				times[i] = append(times[i], time.Since(sent))
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	sorted := slices.Concat(times...)
	slices.Sort(sorted)
	at := func(share float64) float64 {
		return sorted[int(float64(len(sorted)-1)*share)].Seconds() * 1000
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"rate": float64(len(sorted)) / took.Seconds(), "p50": at(0.5), "p99": at(0.99),
	})
}

func connect(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.QPS = -1
	// client-go shares the connection of equal configurations: a dialer of its own sets each client apart.
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	config.Dial = dialer.DialContext
	return kubernetes.NewForConfig(config)
}
