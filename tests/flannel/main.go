// A node of upstream's flannel, made of upstream's own packages: its subnet managers and its backends, for the tests of
// ours beside it. The whole program does not build from the module proxy; what it does besides (rules, health) no other
// node sees. It writes the subnet file, then carries packets until it is ended.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/udp"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/etcd"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
)

func main() {
	endpoints := flag.String("etcd-endpoints", "", "")
	prefix := flag.String("etcd-prefix", "/coreos.com/network", "")
	kubeconfig := flag.String("kubeconfig-file", "", "")
	netConf := flag.String("net-config-path", "", "")
	iface := flag.String("iface", "", "")
	file := flag.String("subnet-file", "", "")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *endpoints, *prefix, *kubeconfig, *netConf, *iface, *file); err != nil {
		log.Fatal(err)
	}
}

func manager(ctx context.Context, endpoints, prefix, kubeconfig, netConf string) (subnet.Manager, error) {
	if kubeconfig != "" {
		return kube.NewSubnetManager(ctx, "", kubeconfig, "flannel.alpha.coreos.com", netConf, true)
	}
	config := &etcd.EtcdConfig{Endpoints: strings.Split(endpoints, ","), Prefix: prefix}
	return etcd.NewLocalManager(ctx, config, ip.IP4Net{}, ip.IP6Net{}, 60)
}

func run(ctx context.Context, endpoints, prefix, kubeconfig, netConf, iface, file string) error {
	sm, err := manager(ctx, endpoints, prefix, kubeconfig, netConf)
	if err != nil {
		return err
	}
	config, err := sm.GetNetworkConfig(ctx)
	for err != nil {
		log.Print(err)
		time.Sleep(time.Second)
		config, err = sm.GetNetworkConfig(ctx)
	}
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	ext, err := ipmatch.LookupExtIface(iface, "", "", stack, ipmatch.PublicIPOpts{})
	if err != nil {
		return err
	}
	be, err := backend.NewManager(ctx, sm, ext).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	network, err := be.RegisterNetwork(ctx, &wg, config)
	if err != nil {
		return err
	}
	lease := network.Lease()
	if err := sm.HandleSubnetFile(file, config, false, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return err
	}
	wg.Add(1)
	go func() {
		network.Run(ctx)
		wg.Done()
	}()
	log.Printf("upstream's flannel has %s", lease.Subnet)
	if err := sm.CompleteLease(ctx, lease, &wg); err != nil {
		return err
	}
	wg.Wait()
	return nil
}
