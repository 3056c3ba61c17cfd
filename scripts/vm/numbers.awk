# "ROUND WHAT MICROSECONDS" in; a table of medians, and the medians of the ratios within a round, out.
{ us[$1, $2] = $3; rounds[$1]; if (!($2 in seen)) { seen[$2]; order[++kinds] = $2 } }

function middle(a, n,  i, j, t) {
    for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
    return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
}
# -1 if there is nothing to compare.
function ratio(a, b,  r, n, list) {
    for (r in rounds) if (us[r, a] > 0 && us[r, b] > 0) list[++n] = us[r, a] / us[r, b]
    return n ? middle(list, n) : -1
}
function goal(name, a, b, most,  r) {
    r = ratio(a, b)
    if (r < 0) printf "ratio %s - goal <= %s missed\n", name, most
    else printf "ratio %s %.2f goal <= %s %s\n", name, r, most, r <= most ? "ok" : "missed"
}
function report(name, a, b,  r) { r = ratio(a, b); if (r >= 0) printf "report %s %.2f\n", name, r }

END {
    printf "%-20s %s\n", "64 bytes (cas: 8)", "median us, emulated"
    for (k = 1; k <= kinds; k++) {
        n = 0
        for (r in rounds) if ((r, order[k]) in us) all[++n] = us[r, order[k]]
        printf "%-20s %.1f\n", order[k], middle(all, n)
    }
    print ""
    goal("rdma-read-64-vs-ib_read_lat", "link-read", "perftest-read", 1.5)
    goal("rdma-write-64-vs-ib_write_lat", "link-write-seen", "perftest-write", 1.5)
    report("rdma-write-64-completed-vs-ib_write_lat", "link-write", "perftest-write")
    for (k = split("read write", kind, " "); k >= 1; k--) {
        report("tcp-" kind[k] "-64-vs-perftest", "link-tcp-" kind[k], "perftest-" kind[k])
        report("path-rdma-" kind[k] "-64-vs-perftest", "path-rdma-" kind[k], "perftest-" kind[k])
        report("path-rdma-" kind[k] "-64-vs-link", "path-rdma-" kind[k], "link-" kind[k])
        report("path-tcp-" kind[k] "-64-vs-perftest", "path-tcp-" kind[k], "perftest-" kind[k])
        report("path-tcp-" kind[k] "-64-vs-path-rdma", "path-tcp-" kind[k], "path-rdma-" kind[k])
    }
    report("path-tcp-cas-vs-path-rdma", "path-tcp-cas", "path-rdma-cas")
}
