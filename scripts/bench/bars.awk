# Lines "NAME VALUE GOAL" (GOAL 0: none) to a bar chart in SVG. The axis ends at `most` (1.2); longer bars are cut,
# and say so by their number. -v title=TEXT [-v most=NUMBER]
function esc(s) { gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); gsub(/>/, "\\&gt;", s); return s }
function x(v) { return left + (v > most ? most : v) / most * width }
BEGIN { left = 210; width = 480; row = 18; top = 46; if (!most) most = 1.2; step = most / 6 }
{ name[++n] = $1; value[n] = $2; goal[n] = $3 }
END {
    height = top + n * row + 30
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n", left + width + 60, height
    printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n<text x=\"10\" y=\"18\" font-size=\"13\">%s</text>\n", esc(title)
    print "<text x=\"10\" y=\"34\" fill=\"#666\">green: at or above its goal (the black mark); red: below; grey: no goal</text>"
    for (v = 0; v <= most + 0.001; v += step) {
        printf "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x(v), top - 4, x(v), height - 22
        printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#666\">%.1f</text>\n", x(v), height - 8, v
    }
    for (i = 1; i <= n; i++) {
        y = top + (i - 1) * row
        colour = goal[i] == 0 ? "#999" : value[i] >= goal[i] ? "#3a8f4d" : "#c0392b"
        printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 6, y + 11, esc(name[i])
        printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"12\" fill=\"%s\"/>\n", left, y + 1, x(value[i]) - left, colour
        if (goal[i]) printf "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"black\" stroke-width=\"2\"/>\n", x(goal[i]), y - 1, x(goal[i]), y + 15
        printf "<text x=\"%.1f\" y=\"%d\">%.2f</text>\n", x(value[i]) + 4, y + 11, value[i]
    }
    print "</svg>"
}
