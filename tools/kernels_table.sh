#!/bin/sh
# tools/kernels_table.sh - the tables of docs/kernels.md, from tests/kernels/baseline.tsv: sh tools/kernels_table.sh FILE
# Of the weight types, f32, f16, q8_0 and q4_k stand for all.
set -eu
[ $# -eq 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }

# cells FAMILIES AWK-EXPRESSION: a table, a column a family. The expression makes a cell of the fields of the file. Where an executable stands
# for each subgroup size, the widest counts.
cells() {
    awk -F '\t' -v families="$1" '
        BEGIN { n = split(families, f, " "); printf "| kernel"; for (i = 1; i <= n; i++) printf " | %s", f[i]; printf " |\n|---"
                for (i = 1; i <= n; i++) printf "|---"; printf "|\n" }
        /^#/ { next }
        $2 ~ /\.(bf16|q4_0|q4_1|q5_0|q5_1|iq4_nl|q2_k|q3_k|q5_k|q6_k)$/ { next }
        index(" " families " ", " " $1 " ") { if (!($2 in seen)) { seen[$2] = 1; order[++m] = $2 } cell[$1, $2] = '"$2"' }
        END { for (k = 1; k <= m; k++) { printf "| %s", order[k]; for (i = 1; i <= n; i++) printf " | %s", cell[f[i], order[k]]; printf " |\n" } }
    ' "$FILE"
}
FILE=$1
K='sprintf($9 < 10000 ? "%d" : "%dk", $9 < 10000 ? $9 : $9 / 1000)'

echo "### AMD: vector registers / subgroups a SIMD / inverse throughput"
echo
echo "By RADV. An **S** behind it: spills or scratch memory."
echo
cells "polaris10 vega10 renoir navi21 navi31 phoenix gfx1151 gfx1200" '$4 "/" $7 "/" '"$K"' ($5 + $6 > 0 ? " **S**" : "")'
echo
echo "### AMD: the hottest loop: multiply-adds / vector instructions, and the estimated share of peak"
echo
cells "polaris10 vega10 navi21 navi31" '$10 < 0 ? "-" : $11 "/" $10 ", " $12 " %"'
echo
echo "### Intel: subgroup size / registers / instructions"
echo
echo "By ANV. Behind it in bold: registers spilled and filled, bytes of scratch memory."
echo
cells "skl tgl dg2 mtl lnl bmg" '$3 "/" $4 "/" $8 ($5 + $6 > 0 ? " **" $5 ", " $6 " B**" : "")'
echo
echo "### Adreno: registers / subgroups a core / instructions"
echo
echo "By Turnip; a register is four words. Behind it in bold: spills."
echo
cells "a630 a660 a740 a750" '$4 "/" $7 "/" $8 ($5 + $6 > 0 ? " **" $5 "**" : "")'
echo
echo "### NVIDIA: registers / instructions"
echo
echo "By NVK. Behind it in bold: bytes of local memory, where spills and arrays that are not in registers go."
echo
cells "gp104 tu102 ga102" '$4 "/" $8 ($5 + $6 > 0 ? " **" $6 " B**" : "")'
