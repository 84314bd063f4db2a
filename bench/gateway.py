"""The gateway as a proxy, beside NGINX and HAProxy as proxies, before the same two NGINX backends."""

import os
import subprocess
from pathlib import Path

import load
import peers
from common import BINARY, free_port, median, note, of

CONNECTIONS, WARM_UP_S, PATH = 64, 1, "/api/balances"
BODY = ('{"user_id":42,"balance":100.50,"held":0.00,"available":100.50,"currency":"USD",'
        '"updated_at":"2026-11-21T12:00:00.000000Z"}').ljust(200)

PROXY = """daemon off; worker_processes 2; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4;
  scgi_temp_path {dir}/t5;
  upstream two {{ {servers} keepalive 64; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://two; proxy_http_version 1.1;
    proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}
}}
"""

HAPROXY = """global
  nbthread 2
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{port}
  option forwardfor
  default_backend b
backend b
  balance roundrobin
  http-reuse always
{servers}"""


class Proxy:
    """A process with a configuration of its own."""

    def __init__(self, name, folder, text, command, env=None):
        self.name, self.folder, self.command, self.env = name, Path(folder), command, env
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.port, self.process = free_port(), None
        (self.folder / "conf").write_text(text(self.folder, self.port))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(self.command(self.folder / "conf", self.port), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=self.env, cwd=self.folder)
        peers.wait_for(self.port, self.name)
        return self

    def stop(self):
        self.process.terminate()
        self.process.wait()


def payflow_proxy(folder, backends):
    """`--role gateway`; backends: lines of YAML. No access log, as with the others."""
    return Proxy("gateway", folder, lambda *_: "load_balancer:\n  backends:\n" + backends,
                 lambda conf, port: [BINARY, "serve", "--role", "gateway", "--port", str(port), "--config", conf],
                 {"PATH": os.environ["PATH"], "LOG_LEVEL": "warn"})


def proxies(folder, backends):
    def nginx(d, port):
        return PROXY.format(dir=d, port=port, servers=" ".join(f"server 127.0.0.1:{b.port};" for b in backends))

    def haproxy(_, port):
        return HAPROXY.format(port=port, servers="".join(f"  server s{b.port} 127.0.0.1:{b.port}\n" for b in backends))
    return [
        payflow_proxy(folder / "gateway", "".join(f"    - {{name: b{b.port}, url: '{b.url}', max_connections: 0}}\n"
                                                  for b in backends)),
        Proxy("NGINX", folder / "proxy-nginx", nginx, lambda conf, _: ["/usr/sbin/nginx", "-p", conf.parent, "-c", conf]),
        Proxy("HAProxy", folder / "proxy-haproxy", haproxy, lambda conf, _: ["/usr/sbin/haproxy", "-f", conf]),
    ]


def section(o, report, spread, form):
    backends = [peers.Nginx(o.folder / f"backend{i}", BODY) for i in (1, 2)]
    started, results = [], {}
    try:
        for b in backends:
            b.start()
            started.append(b)
        those = proxies(o.folder, backends)
        for p in those:
            started.append(p.start())
        for n in range(o.rounds + 1):
            for p in those:
                r = load.reads(p.url, PATH, connections=CONNECTIONS, seconds=o.seconds if n else WARM_UP_S)
                report.check_load(f"{p.name} as proxy", r)
                if n:
                    results.setdefault(p.name, []).append(r)
            if n:
                note(f"round {n} of {o.rounds}: " + ", ".join(f"{k} {v[-1]['rate']:,.0f}/s" for k, v in results.items()))
    finally:
        for p in reversed(started):
            p.stop()
    peers_of = {k: median(v, "rate") for k, v in results.items() if k != "gateway"}
    better = max(peers_of, key=peers_of.get)
    ratio = median(results["gateway"], "rate") / peers_of[better]
    report.row(f"gateway, a 200-byte JSON answer from two backends, {CONNECTIONS} connections, a second",
               spread(of(results["gateway"], "rate"), form),
               "; ".join(f"{k}: {spread(of(results[k], 'rate'), form)}" for k in peers_of),
               f"{ratio:.2f} × {better}", "≥ 0.5 ×", ratio >= 0.5)
