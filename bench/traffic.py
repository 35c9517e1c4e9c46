"""Load balancers, beside nginx and haproxy as proxies in front of the same backend, each on the same core in turn; and a
network load balancer beside a connection to the backend itself. The load and the backend are on the other core."""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import time

from figures import Figure
from ground import Unmeasured, cloud, say

NAME = "traffic"
ROUNDS = 3
SECONDS = 4
CONNECTIONS = 32
# An address of the machine that no network uses, for the backend: targets are addresses of private networks.
BACKEND, BACKEND_PORT = "10.255.77.1", 18080
NGINX_PORT, HAPROXY_PORT, OURS = 18081, 18082, 80
PROXY_CORE, LOAD_CORE = "0", "1"
SIZES = {"1 KB": "/1k", "100 KB": "/100k"}

NGINX_BACKEND = """
worker_processes 1; daemon off; pid {folder}/backend.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen {address}:{port} backlog=4096; root {folder}/www; }}
}}
"""
NGINX_PROXY = """
worker_processes 1; daemon off; pid {folder}/proxy.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/b2; proxy_temp_path {folder}/p2; fastcgi_temp_path {folder}/f2;
  uwsgi_temp_path {folder}/u2; scgi_temp_path {folder}/s2;
  upstream backend {{ server {backend}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen {address}:{port} backlog=4096;
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Host $host;
    }}
  }}
}}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind {address}:{port} backlog 4096
  default_backend out
backend out
  server one {backend}
"""


def measure(folder):
    missing = [program for program in ("wrk", "nginx", "haproxy", "taskset") if not shutil.which(program)]
    if missing:
        raise Unmeasured(f"install {' '.join(missing)}: apt-get install wrk nginx haproxy util-linux")
    if len(os.sched_getaffinity(0)) < 2:
        raise Unmeasured("the proxy and the load need a core each")
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_address())
        target = stack.enter_context(cloud(folder))
        pin(target.server.process.pid, PROXY_CORE)
        stack.enter_context(backend(folder))
        stack.enter_context(nginx(folder))
        stack.enter_context(haproxy(folder))
        with balancers(target) as (application, network):
            proxies = {
                "ours": f"http://{application}:{OURS}",
                "nginx": f"http://{BACKEND}:{NGINX_PORT}",
                "haproxy": f"http://{BACKEND}:{HAPROXY_PORT}",
            }
            for url in proxies.values():
                wait_for(url + SIZES["1 KB"])
            figures = []
            for size, path in SIZES.items():
                figures += beside(f"{size}, keep-alive", {name: url + path for name, url in proxies.items()})
            one_each = {name: url + SIZES["1 KB"] for name, url in proxies.items()}
            figures += beside("1 KB, a connection for each request", one_each, "Connection: close")
            figures += straight(f"http://{network}:{OURS}")
            return figures


def beside(what, urls, *headers):
    """Requests per second and p99 of each, in turns."""
    say(f"  {what}")
    took = {name: [] for name in urls}
    for _ in range(ROUNDS):
        for name, url in urls.items():
            took[name].append(load(url, *headers))
    rate = {name: statistics.median(rate for rate, _ in each) for name, each in took.items()}
    late = {name: statistics.median(late for _, late in each) for name, each in took.items()}
    figures = []
    for peer in ("nginx", "haproxy"):
        goal = {"at_least": 1.0} if peer == "nginx" else {}
        figures.append(Figure(NAME, f"{what}, requests", "/s", rate["ours"], peer, rate[peer], **goal))
        goal = {"at_most": 1.0} if peer == "nginx" else {}
        figures.append(Figure(NAME, f"{what}, p99", "ms", late["ours"], peer, late[peer], **goal))
    return figures


def straight(network):
    say("  a network load balancer beside the backend itself")
    figures = []
    for size, path in SIZES.items():
        direct = f"http://{BACKEND}:{BACKEND_PORT}{path}"
        wait_for(network + path)
        took = {"ours": [], "direct": []}
        for _ in range(ROUNDS):
            took["direct"].append(load(direct)[0])
            took["ours"].append(load(network + path)[0])
        ours, theirs = (statistics.median(took[name]) for name in ("ours", "direct"))
        figures.append(
            Figure(NAME, f"NLB, {size}, requests", "/s", ours, "a direct connection", theirs, at_least=0.9)
        )
    return figures


def load(url, *headers):
    """Requests per second, and the 99th percentile of their time in milliseconds."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency"]
    for header in headers:
        command += ["-H", header]
    said = subprocess.run([*command, url], capture_output=True, text=True, timeout=SECONDS + 30, check=True).stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: connect (\d+)", said)
    if errors and any(int(count) for count in errors.groups() if count):
        raise Unmeasured(f"{url}: {errors[0]}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()
    return rate, float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


@contextlib.contextmanager
def balancers(target):
    """An application and a network load balancer before the backend; their addresses."""
    elb, vpc = target.elbv2, target.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    addresses = []
    for kind, protocol in (("application", "HTTP"), ("network", "TCP")):
        name = f"bench-{kind}"
        (made,) = elb.create_load_balancer(Name=name, Type=kind, Subnets=target.subnets[:2])["LoadBalancers"]
        (group,) = elb.create_target_group(
            Name=name, Protocol=protocol, Port=BACKEND_PORT, VpcId=vpc, TargetType="ip", HealthCheckPort=str(BACKEND_PORT)
        )["TargetGroups"]
        where = {"Id": BACKEND, "Port": BACKEND_PORT, "AvailabilityZone": "all"}
        elb.register_targets(TargetGroupArn=group["TargetGroupArn"], Targets=[where])
        forward = [{"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}]
        elb.create_listener(
            LoadBalancerArn=made["LoadBalancerArn"], Protocol=protocol, Port=OURS, DefaultActions=forward
        )
        shown = {"Name": "description", "Values": [f"ELB {made['LoadBalancerArn'].partition(':loadbalancer/')[2]}"]}
        (first, *_) = target.ec2.describe_network_interfaces(Filters=[shown])["NetworkInterfaces"]
        addresses.append(first["PrivateIpAddress"])
    yield addresses


@contextlib.contextmanager
def own_address():
    subprocess.run(["ip", "address", "add", f"{BACKEND}/32", "dev", "lo"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "address", "del", f"{BACKEND}/32", "dev", "lo"], check=False)


def backend(folder):
    www = folder / "www"
    www.mkdir()
    (www / "1k").write_bytes(b"x" * 1024)
    (www / "100k").write_bytes(b"x" * 102400)
    conf = folder / "backend.conf"
    conf.write_text(NGINX_BACKEND.format(folder=folder, address=BACKEND, port=BACKEND_PORT))
    folder.chmod(0o755)
    return running(LOAD_CORE, "nginx", "-c", conf, "-p", folder)


def nginx(folder):
    conf = folder / "proxy.conf"
    where = f"{BACKEND}:{BACKEND_PORT}"
    conf.write_text(NGINX_PROXY.format(folder=folder, address=BACKEND, port=NGINX_PORT, backend=where))
    return running(PROXY_CORE, "nginx", "-c", conf, "-p", folder)


def haproxy(folder):
    conf = folder / "haproxy.conf"
    conf.write_text(HAPROXY.format(address=BACKEND, port=HAPROXY_PORT, backend=f"{BACKEND}:{BACKEND_PORT}"))
    return running(PROXY_CORE, "haproxy", "-f", conf, "-db")


@contextlib.contextmanager
def running(core, *command):
    started = subprocess.Popen(["taskset", "-c", core, *command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(10)


def pin(process, core):
    """All threads of a process, those to come too."""
    subprocess.run(["taskset", "-a", "-p", "-c", core, str(process)], check=True, capture_output=True)


def wait_for(url):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.CalledProcessError, Unmeasured, TypeError):
            said = subprocess.run(["wrk", "-t1", "-c1", "-d0.1s", url], capture_output=True, text=True, check=True).stdout
            if "Non-2xx" not in said and "Socket errors" not in said and "0 requests in" not in said:
                return
        time.sleep(0.1)
    raise Unmeasured(f"{url} does not answer")
