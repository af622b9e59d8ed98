# summary.awk: samples of several rounds as one table.
# Purpose: awk -f bench/summary.awk ROWS samples.tsv prints median, least and greatest of each row.
# Needs:   ROWS as `bars_rows` in bars.sh prints them; any awk.
# Effects: none but the table, in Markdown.
#
# Several samples of a measure in one round stand for their median. A ratio is taken round by round,
# since what two neighbours shared they shared within a round. The bar is compared with the median.

BEGIN { FS = "\t" }

FNR == 1 { file++ }
file == 1 { row[++rows] = $0; next }
FNR > 1 { # below the header
    key = $1 SUBSEP $2
    sample[key, ++samples[key]] = $3
    if ($1 > rounds) rounds = $1
}

# Sorts list[1..n] in place.
function sort(list, n,    i, j, value) {
    for (i = 2; i <= n; i++) {
        value = list[i]
        for (j = i - 1; j >= 1 && list[j] > value; j--) list[j + 1] = list[j]
        list[j + 1] = value
    }
}

# The median of the sorted list[1..n].
function median(list, n) {
    return (list[int((n + 1) / 2)] + list[int(n / 2) + 1]) / 2
}

# What `measure` was in `round`.
function value(round, measure,    key, list, n, i) {
    key = round SUBSEP measure
    n = samples[key]
    if (!n) {
        print "no sample of " measure " in round " round > "/dev/stderr"
        exit 1
    }
    for (i = 1; i <= n; i++) list[i] = sample[key, i] + 0
    sort(list, n)
    return median(list, n)
}

function show(number, unit) {
    if (unit == "requests/s" || unit == "KiB") return sprintf("%.0f", number)
    return sprintf(unit == "us" ? "%.1f" : "%.2f", number)
}

function verdict(number, bar,    words) {
    if (!bar) return ""
    split(bar, words, " ")
    if (words[1] == "<") return number < words[2] ? "met" : "missed"
    if (words[1] == "<=") return number <= words[2] ? "met" : "missed"
    return number >= words[2] ? "met" : "missed"
}

function line(what, unit, middle, least, greatest, bar, result) {
    printf "| %-45s | %-14s | %8s | %8s | %8s | %-7s | %-6s |\n", \
        what, unit, middle, least, greatest, bar, result
}

END {
    line("", "", "median", "min", "max", "bar", "")
    print "|---|---|--:|--:|--:|---|---|"
    for (r = 1; r <= rows; r++) {
        split(row[r], column, "|")
        for (round = 1; round <= rounds; round++) {
            list[round] = value(round, column[3])
            if (column[4]) list[round] /= value(round, column[4])
        }
        sort(list, rounds)
        middle = median(list, rounds)
        line(column[1], column[2], show(middle, column[2]), show(list[1], column[2]), \
            show(list[rounds], column[2]), column[5], verdict(middle, column[5]))
    }
}
