"""Times every workload in every framework, one process per framework and workload, interleaved round by round.

usage: run.py [-r ROUNDS] [-w a,b] [-f torch,compile,jax,graphflow] [--threads N]
Prints the median step in microseconds, the first call's seconds (cold), and the ratio of each peer to graphflow.
"""
import argparse, json, os, subprocess, sys, time, statistics as st
HERE = os.path.dirname(os.path.abspath(__file__))
PY = os.environ.get('PEERS_PYTHON', sys.executable)
GF = os.environ.get('GRAPHFLOW_PYTHON', sys.executable)

def child(fw, w, threads):
    # frameworks that take no number of threads take that of the CPUs they may run on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    t0 = time.perf_counter()
    if fw in ('torch', 'compile'):
        import torch; torch.set_num_threads(threads)
        import peers_torch as m
        make = lambda: m.ALL[w](fw == 'compile')
    elif fw == 'jax':
        import peers_jax as m
        make = m.ALL[w]
    else:
        import peers_graphflow as m
        make = m.ALL[w]
    t1 = time.perf_counter()
    step = make(); step()
    t2 = time.perf_counter()
    for _ in range(3): step()
    print(json.dumps(dict(imp=t1 - t0, cold=t2 - t1)), flush=True)
    for line in sys.stdin:
        budget = float(line); n = 0; ts = []
        end = time.perf_counter() + budget
        while time.perf_counter() < end or len(ts) < 3:
            a = time.perf_counter(); step(); ts.append(time.perf_counter() - a)
        print(json.dumps(dict(med=st.median(ts), min=min(ts), n=len(ts))), flush=True)

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('-r', type=int, default=7); ap.add_argument('-b', type=float, default=0.6)
    ap.add_argument('-w', default=''); ap.add_argument('-f', default='torch,compile,jax,graphflow'); ap.add_argument('--threads', type=int, default=os.cpu_count())
    ap.add_argument('--child', nargs=2); a = ap.parse_args()
    sys.path.insert(0, HERE)
    if a.child: return child(*a.child, a.threads)
    ws = a.w.split(',') if a.w else 'twolayer mlp lenet cnn gpt lstm chain norm dispatch'.split()
    fws = a.f.split(',')
    out, ratios = {}, {}
    for w in ws:
        ps = {}
        for f in fws:
            env = dict(os.environ, OMP_NUM_THREADS=str(a.threads), NUMBA_NUM_THREADS=str(a.threads), GRAPHFLOW_NUM_THREADS=str(a.threads))
            p = subprocess.Popen([GF if f == 'graphflow' else PY, os.path.join(HERE, 'run.py'), '--threads', str(a.threads), '--child', f, w],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
            head = p.stdout.readline()
            if not head: print(f'{w:9s} {f:9s} FAILED'); continue
            ps[f] = (p, json.loads(head), [])
        for _ in range(a.r):
            for f, (p, h, ts) in ps.items():
                p.stdin.write(f'{a.b}\n'); p.stdin.flush(); ts.append(json.loads(p.stdout.readline())['med'])
        for f, (p, h, ts) in ps.items(): p.stdin.close(); p.wait()
        base = ps['graphflow'][2] if 'graphflow' in ps else None
        for f, (p, h, ts) in ps.items():
            r = f"  {f}/graphflow {st.median(x / y for x, y in zip(ts, base)):.2f}" if base and f != 'graphflow' else ''
            print(f"{w:9s} {f:9s} {st.median(ts)*1e6:10.1f} us  (min {min(ts)*1e6:.1f})  import {h['imp']:.2f}s cold {h['cold']:.2f}s{r}", flush=True)
            out[f'{w}/{f}'] = dict(us=st.median(ts) * 1e6, **h)
        if base and len(ps) > 1:
            best = min((st.median(x / y for x, y in zip(ts, base)), f) for f, (p, h, ts) in ps.items() if f != 'graphflow')
            ratios[w] = best[0]
            print(f"{w:9s} best peer/graphflow {best[0]:.2f} ({best[1]})", flush=True)
    if ratios:
        print(f"geometric mean of best peer/graphflow {st.geometric_mean(ratios.values()):.2f}, lowest {min(ratios.values()):.2f}")
    print(json.dumps(out))
main()
