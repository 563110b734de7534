/* Rows of logits in one pass: their numbers as columns, or added to the sums of bins and to the sketch; or statistics of
rows, added likewise.

Sums are of integers, so any split of the data gives the same bits. */

#include "rows.h"

#include <stdlib.h>

#define CHUNK (1 << 24) /* rows whose sums do not overflow */
#define UNITS 0x1p32
#define LARGEST 0x1p31

typedef struct {
    int64_t num_bins, closed_left, positive, omit, entropy, ignores, ignore_index;
} Options;

/* Fills in columns of as many numbers as there are rows, and two of flags. Returns 0, or 1 if a target is no class. */
int read_rows(const Source *source, int64_t spread, double *columns, uint8_t *flags) {
    const int64_t rows = source->rows, *target = source->target;
    Block block __attribute__((aligned(64))) = {0};
    for (int64_t first = 0; first < rows; first += BLOCK) {
        int count = rows - first < BLOCK ? rows - first : BLOCK;
        for (int row = 0; row < count; row++)
            if ((block.label[row] = target[first + row]) < 0 || block.label[row] >= source->classes) return 1;
        read_block(&block, source, first, count, spread);
        const double *found[] = {block.top, block.odds,    block.log_odds, block.truth,
                                 block.nll, block.squares, block.entropy};
        for (int i = 0; i < 6 + (spread != 0); i++)
            memcpy(columns + i * rows + first, found[i], count * sizeof(double));
        memcpy(flags + first, block.valid, count);
        memcpy(flags + rows + first, block.correct, count);
    }
    return 0;
}

typedef struct {
    int64_t n, p, squares;
} Cell;

typedef struct {
    int64_t n, invalid, out_of_range, infinite, nll, nll_rest, brier, entropy;
} Totals;

INLINE int64_t units(double value) { return llrint(value * UNITS); }

INLINE int64_t bin_of(double p, const Options *options) {
    const double bins = options->num_bins;
    if (options->closed_left) {
        int64_t bin = p * (bins * (1 + 0x1p-50));
        return bin < options->num_bins ? bin : options->num_bins - 1;
    }
    double place = p * (bins * (1 - 0x1p-50));
    int64_t below = place;
    return below - (below == place && below > 0);
}

INLINE void read_targets(Block *block, const Source *source, const Options *options, int64_t first, int count) {
    for (int row = 0; row < count; row++) {
        double real = source->float_target ? ((const double *)source->target)[first + row] : 0;
        int64_t label = source->float_target ? real == 1 : ((const int64_t *)source->target)[first + row];
        int in_range = source->float_target ? real == 0 || real == 1 : label >= 0 && label < source->classes;
        int ignored = source->float_target ? real == options->ignore_index : label == options->ignore_index;
        block->ignored[row] = options->ignores && ignored;
        block->in_range[row] = in_range;
        block->label[row] = in_range ? label : 0;
    }
}

INLINE void sketch_row(const Block *block, int row, int counted, int readable, int64_t *sketch, int64_t num_cells) {
    if (counted) {
        float odds = block->odds[row];
        uint32_t bits;
        memcpy(&bits, &odds, sizeof bits);
        int64_t cell = bits >> 16, *sums = sketch + 3 * (cell < num_cells ? cell : num_cells - 1);
        sums[0] += 1, sums[1] += !block->correct[row], sums[2] += units(block->top[row]);
    } else if (!block->ignored[row])
        sketch[3 * num_cells + (readable ? 2 : 1)] += 1;
}

INLINE void sum_row(const Block *block, int row, int binary, const Options *options, Cell *cells, Totals *to) {
    int correct = block->correct[row], hit = options->positive ? block->label[row] != 0 : correct;
    double p = hit == correct ? block->top[row] : 1 - block->top[row], nll = block->nll[row];
    double brier = block->squares[row] - 2 * block->truth[row] + 1;
    Cell *cell = cells + (2 * correct + hit) * options->num_bins + bin_of(p, options);
    cell->n += 1, cell->p += units(p), cell->squares += units(p * p);
    to->n += 1, to->brier += units(binary ? brier / 2 : brier);
    if (options->entropy) to->entropy += units(block->entropy[row]);
    if (nll < LARGEST) {
        int64_t whole = nll;
        to->nll += whole, to->nll_rest += units(nll - whole);
    } else
        to->infinite += 1;
}

/* A number is its whole part and the rest in units of 2^-32. */
static void add_pair(int64_t *pair, int64_t whole, int64_t rest) {
    rest += pair[1];
    pair[0] += whole + (rest >> 32);
    pair[1] = rest & 0xffffffff;
}

static void add_cells(int64_t *sums, const Cell *cells, int64_t bins) {
    for (int64_t bin = 0; bin < bins; bin++, sums += 16) {
        const Cell wrong = cells[bin], false_hit = cells[bins + bin];
        const Cell miss = cells[2 * bins + bin], hit = cells[3 * bins + bin];
        int64_t hits = hit.n + false_hit.n, p_hits = hit.p + false_hit.p;
        int64_t squares = wrong.squares + false_hit.squares + miss.squares + hit.squares;
        add_pair(sums, wrong.n + false_hit.n + miss.n + hit.n, 0);
        add_pair(sums + 2, hits, 0);
        add_pair(sums + 4, 0, wrong.p + false_hit.p + miss.p + hit.p);
        add_pair(sums + 6, 0, squares);
        add_pair(sums + 8, 0, p_hits);
        add_pair(sums + 10, hits, squares - 2 * p_hits);
        add_pair(sums + 12, miss.n + hit.n, 0);
    }
}

static void add_totals(int64_t *sums, const Totals *found, const Options *options) {
    add_pair(sums, found->n, 0);
    add_pair(sums + (options->omit ? 14 : 2), found->invalid, 0);
    add_pair(sums + 4, found->out_of_range, 0);
    add_pair(sums + 6, found->infinite, 0);
    add_pair(sums + 8, found->nll, found->nll_rest);
    add_pair(sums + 10, 0, found->brier);
    add_pair(sums + 12, options->entropy ? 0 : -found->n, found->entropy);
}

/* Four lines of `rows` numbers each, those of row_statistics.py; the numbers of `Row` follow as in from_statistics.py. */
typedef struct {
    const float *lines;
    int64_t rows;
} Statistics;

INLINE void read_statistics(Block *block, const Statistics *from, int64_t first, int count) {
    float lines[4][BLOCK] = {{0}};
    for (int k = 0; k < 4; k++) memcpy(lines[k], from->lines + k * from->rows + first, count * sizeof(float));
    for (int i = 0; i < count; i += LANES) {
#define LINE(k) load((const char *)(lines[k] + i), FLOAT32, NULL)
        Vector nll = LINE(0), log_odds = LINE(1), squares = LINE(2);
        Bits likely = (Bits)(log_odds <= 0);
        Vector size = exp_of(where(likely, log_odds, -log_odds)), share = 1 / (1 + size), truth = exp_of(-nll);
        AT(nll) = nll, AT(truth) = truth, AT(squares) = larger(squares, truth * truth);
        AT(top) = where(likely, share, size * share), AT(odds) = where(likely, size, 1 / size);
    }
    for (int row = 0; row < count; row++) {
        block->ignored[row] = lines[3][row] < 0, block->correct[row] = lines[3][row] > 0;
        block->valid[row] = lines[0][row] == lines[0][row], block->in_range[row] = 1;
        block->label[row] = 0;
    }
}

/* Adds all rows of one of two sources, the other is NULL, to `sums` of bins and to `sketch`, either of which may be
 * NULL. Returns 0, or 1 without memory. */
static int add(const Source *source, const Statistics *statistics, const Options *options, int64_t *sums,
               int64_t *sketch, int64_t num_cells) {
    const int64_t rows = source ? source->rows : statistics->rows;
    const int binary = source && source->binary;
    Cell *cells = malloc(4 * options->num_bins * sizeof(Cell));
    if (!cells) return 1;
    Block block __attribute__((aligned(64))) = {0};
    for (int64_t start = 0; start < rows; start += CHUNK) {
        int64_t end = rows - start < CHUNK ? rows : start + CHUNK;
        memset(cells, 0, 4 * options->num_bins * sizeof(Cell));
        Totals totals = {0};
        for (int64_t first = start; first < end; first += BLOCK) {
            int count = end - first < BLOCK ? end - first : BLOCK;
            if (source) {
                read_targets(&block, source, options, first, count);
                read_block(&block, source, first, count, options->entropy);
            } else
                read_statistics(&block, statistics, first, count);
            for (int row = 0; row < count; row++) {
                int readable = block.valid[row] && !block.ignored[row], counted = readable && block.in_range[row];
                if (sketch) sketch_row(&block, row, counted, readable, sketch, num_cells);
                if (!sums) continue;
                if (counted)
                    sum_row(&block, row, binary, options, cells, &totals);
                else if (!block.ignored[row])
                    readable ? totals.out_of_range++ : totals.invalid++;
            }
        }
        if (!sums) continue;
        add_cells(sums, cells, options->num_bins);
        add_totals(sums + 16 * options->num_bins, &totals, options);
    }
    free(cells);
    return 0;
}

int add_rows(const Source *source, const Options *options, int64_t *sums, int64_t *sketch, int64_t num_cells) {
    return add(source, NULL, options, sums, sketch, num_cells);
}

int add_statistics(const float *lines, int64_t rows, const Options *options, int64_t *sums, int64_t *sketch,
                   int64_t num_cells) {
    const Statistics statistics = {lines, rows};
    return add(NULL, &statistics, options, sums, sketch, num_cells);
}
