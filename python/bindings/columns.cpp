// Column finding: peaks, nearest points, local lattices, growth and refinement.
#include "core.hpp"

#include <limits>

#include "arrays.hpp"
#include "contextem/growth.hpp"
#include "contextem/lattice.hpp"
#include "contextem/peaks.hpp"
#include "contextem/points.hpp"
#include "contextem/refine.hpp"

namespace contextem::bindings {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using IndexArray = py::array_t<std::int64_t, py::array::c_style>;
using BoolArray = py::array_t<bool, py::array::c_style>;

template <class T>
py::array_t<T> array_of(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
    return py::array_t<T>(std::move(shape), values.data());
}

void expect(bool fits, const char* sentence) {
    if (!fits) {
        throw py::value_error(sentence);
    }
}

bool positive(double value) { return value > 0.0 && value < std::numeric_limits<double>::infinity(); }

// Of a Gaussian, px: its table grows with it.
bool a_width(double sigma) { return sigma > 0.0 && sigma <= 4096.0; }

py::array response(const py::array& image, double sigma, int n_threads) {
    expect(a_width(sigma), "sigma: expected a width in px above 0, at most 4096");
    return with_real_type("image", image.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const ImageView<T> view = image_view<T>(image);
        expect(view.rows > 0 && view.columns > 0, "image: expected at least one pixel");
        py::array_t<T> values({view.rows, view.columns});
        T* out = values.mutable_data();
        {
            py::gil_scoped_release without_gil;
            peak_response(view, sigma, n_threads, out);
        }
        return values;
    });
}

py::tuple maxima(const py::array& response, int n_threads, Index top) {
    return with_real_type("response", response.dtype(), [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const ImageView<T> view = image_view<T>(response);
        expect(view.column_stride == 1 || view.columns == 1,
               "response: expected rows of adjacent pixels; copy it first");
        Maxima found;
        {
            py::gil_scoped_release without_gil;
            found = local_maxima(view, top, n_threads);
        }
        const auto count = static_cast<py::ssize_t>(found.heights.size());
        return py::make_tuple(array_of(found.positions, {count, 2}), array_of(found.heights, {count}));
    });
}

DoubleArray sample(const py::array& image, const DoubleArray& positions, int n_threads, Index top, Index rows) {
    return with_real_type("image", image.dtype(), [&](auto zero) -> DoubleArray {
        using T = decltype(zero);
        const ImageView<T> view = band_view<T>(image, top, rows);
        const PositionsView places = positions_view(positions);
        expect(image.shape(0) > 0 && view.columns > 0, "image: expected at least one pixel");
        expect_in_band(places, 1.0, top, image.shape(0), view.rows);
        DoubleArray values(places.count);
        double* out = values.mutable_data();
        {
            py::gil_scoped_release without_gil;
            sample_image(view, places, n_threads, out);
        }
        return values;
    });
}

DoubleArray blur(const DoubleArray& boards, double sigma, int n_threads) {
    expect(boards.ndim() == 3 && a_width(sigma), "boards, sigma: expected shape (n, H, W) and a width of at most 4096");
    DoubleArray blurred({boards.shape(0), boards.shape(1), boards.shape(2)});
    const double* in = boards.data();
    double* out = blurred.mutable_data();
    {
        py::gil_scoped_release without_gil;
        blur_boards(in, boards.shape(0), boards.shape(1), boards.shape(2), sigma, n_threads, out);
    }
    return blurred;
}

// Points and the cells they are sorted into.
struct Points {
    DoubleArray positions;
    PointGrid grid;

    explicit Points(DoubleArray given) : positions(std::move(given)), grid(positions_view(positions)) {}

    py::tuple within(const DoubleArray& sites, double reach, int n_threads) const {
        expect(positive(reach), "reach: expected a positive distance");
        const PositionsView view = positions_view(sites);
        DoubleArray distances(view.count);
        IndexArray numbers(view.count);
        double* out = distances.mutable_data();
        Index* found = numbers.mutable_data();
        {
            py::gil_scoped_release without_gil;
            nearest_within(grid, view, reach, n_threads, out, found);
        }
        return py::make_tuple(distances, numbers);
    }

    py::tuple nearest(const DoubleArray& sites, Index k, int n_threads) const {
        expect(k >= 1, "k: expected at least 1");
        const PositionsView view = positions_view(sites);
        DoubleArray distances({view.count, k});
        IndexArray numbers({view.count, k});
        double* out = distances.mutable_data();
        Index* found = numbers.mutable_data();
        {
            py::gil_scoped_release without_gil;
            nearest_k(grid, view, k, n_threads, out, found);
        }
        return py::make_tuple(distances, numbers);
    }

    DoubleArray levels(const DoubleArray& heights, Index k, double percentile, int n_threads) const {
        expect(heights.ndim() == 1 && heights.shape(0) == grid.count(), "heights: expected shape (N,)");
        expect(k >= 1 && k <= grid.count(), "k: expected 1 to N");
        expect(percentile >= 0.0 && percentile <= 100.0, "percentile: expected 0 to 100");
        DoubleArray result(grid.count());
        const PositionsView view = positions_view(positions);
        const double* in = heights.data();
        double* out = result.mutable_data();
        {
            py::gil_scoped_release without_gil;
            local_levels(grid, view, in, k, percentile, n_threads, out);
        }
        return result;
    }

    PeakWeights weights(const DoubleArray& strength, double reach) const {
        expect(strength.ndim() == 1 && strength.shape(0) == grid.count(), "strength: expected shape (N,)");
        expect(positive(reach), "reach: expected a positive distance");
        return {grid, positions_view(positions), strength.data(), reach};
    }

    py::tuple snap(const DoubleArray& strength, const DoubleArray& sites, double reach, int n_threads) const {
        const PeakWeights peaks = weights(strength, reach);
        const PositionsView view = positions_view(sites);
        DoubleArray snapped({view.count, Index(2)});
        DoubleArray counts(view.count);
        double* out = snapped.mutable_data();
        double* weight = counts.mutable_data();
        {
            py::gil_scoped_release without_gil;
            snap_sites(peaks, view, n_threads, out, weight);
        }
        return py::make_tuple(snapped, counts);
    }

    py::tuple grow(const DoubleArray& strength, Index seed, const DoubleArray& basis, double reach, Index height,
                   Index width, int n_threads) const {
        expect(seed >= 0 && seed < grid.count(), "seed: expected the number of a point");
        expect(basis.ndim() == 2 && basis.shape(0) == 2 && basis.shape(1) == 2, "basis: expected shape (2, 2)");
        expect(basis.at(0, 0) * basis.at(1, 1) != basis.at(0, 1) * basis.at(1, 0), "basis: expected two directions");
        expect(height >= 1 && width >= 1, "height, width: expected at least one pixel");
        const PeakWeights peaks = weights(strength, reach);
        const double* start = positions.data() + 2 * seed;
        const double* vectors = basis.data();
        GrownSites grown;
        {
            py::gil_scoped_release without_gil;
            grown = grow_sites(peaks, start, vectors, height, width, n_threads);
        }
        const auto count = static_cast<py::ssize_t>(grown.support.size());
        const std::vector<char>& flags = grown.measured;
        BoolArray measured(count);
        std::copy(flags.begin(), flags.end(), measured.mutable_data());
        return py::make_tuple(array_of(grown.indices, {count, 2}), array_of(grown.predicted, {count, 2}),
                              array_of(grown.support, {count}), array_of(grown.lopsided, {count}), measured);
    }
};

py::tuple spectra(const py::array& image, const IndexArray& corners, Index rows, Index columns, Index pad, Index centre,
                  double sigma, int n_threads) {
    expect(corners.ndim() == 2 && corners.shape(1) == 2, "corners: expected shape (n, 2)");
    expect(rows >= 1 && columns >= 1 && centre >= 1 && pad >= 2 * centre && a_width(sigma),
           "rows, columns, pad, centre, sigma: expected a tile, at most pad / 2 bins and a width of at most 4096");
    return with_real_type("image", image.dtype(), [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const ImageView<T> view = image_view<T>(image);
        const Index count = corners.shape(0);
        for (Index t = 0; t < count; ++t) {
            const Index top = corners.at(t, 0);
            const Index left = corners.at(t, 1);
            expect(top >= 0 && left >= 0 && top + rows <= view.rows && left + columns <= view.columns,
                   "corners: expected tiles inside the image");
        }
        const Index side = 2 * centre;
        FloatArray power({count, side, side});
        BoolArray varies(count);
        float* out = power.mutable_data();
        bool* flags = varies.mutable_data();
        const Index* first = corners.data();
        {
            py::gil_scoped_release without_gil;
            const SpectrumTables tables(rows, columns, pad, centre, sigma);
            tile_spectra(view, first, count, tables, n_threads, out, flags);
        }
        return py::make_tuple(power, varies);
    });
}

Index centre_of(const FloatArray& power) {
    expect(power.ndim() == 3 && power.shape(1) == power.shape(2) && power.shape(1) % 2 == 0 && power.shape(1) > 0,
           "power: expected shape (n, 2 c, 2 c)");
    return power.shape(1) / 2;
}

DoubleArray scores(const FloatArray& power, double pad, const DoubleArray& radius, const DoubleArray& angle,
                   int n_threads) {
    const Index centre = centre_of(power);
    expect(radius.ndim() == 1 && angle.ndim() == 1 && angle.shape(0) > 0,
           "radius, angle: expected shapes (R,) and (A,)");
    DoubleArray result({power.shape(0), radius.shape(0), angle.shape(0)});
    const SpokeTable table = {radius.shape(0), angle.shape(0), radius.data(), angle.data(), pad};
    const float* in = power.data();
    double* out = result.mutable_data();
    {
        py::gil_scoped_release without_gil;
        spoke_scores(in, power.shape(0), centre, table, n_threads, out);
    }
    return result;
}

DoubleArray spots(const FloatArray& power, double pad, const DoubleArray& radius, const DoubleArray& angle,
                  int n_threads) {
    const Index centre = centre_of(power);
    const Index count = power.shape(0);
    expect(radius.ndim() == 1 && angle.ndim() == 1 && radius.shape(0) == count && angle.shape(0) == count,
           "radius, angle: expected shape (n,)");
    DoubleArray result({count, Index(3), Index(2)});
    const float* in = power.data();
    const double* far = radius.data();
    const double* turn = angle.data();
    double* out = result.mutable_data();
    {
        py::gil_scoped_release without_gil;
        hexagon_spots(in, count, centre, pad, far, turn, n_threads, out);
    }
    return result;
}

py::tuple refine(const py::function& rows_of, Index height, Index tile, const py::dtype& dtype,
                 const DoubleArray& start, const BoolArray& movable, double sigma, double spacing, double furthest,
                 int n_threads) {
    expect(positive(sigma) && positive(spacing) && positive(furthest),
           "sigma, spacing, furthest: expected positive lengths in px");
    expect(height >= 1 && tile >= 1, "height, tile: expected at least one row");
    return with_real_type("image", dtype, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const PositionsView centres = positions_view(start);
        expect(movable.ndim() == 1 && movable.shape(0) == centres.count, "movable: expected shape (N,)");
        DoubleArray positions({centres.count, Index(2)});
        DoubleArray amplitudes(centres.count);
        DoubleArray deviations(centres.count);
        double* out = positions.mutable_data();
        double* heights = amplitudes.mutable_data();
        double* scatter = deviations.mutable_data();
        const auto* flags = reinterpret_cast<const unsigned char*>(movable.data());
        double width = 0.0;
        py::array held;  // what the columns are fitted to lives here, and dies under the GIL
        const BandSource<T> bands = [&](Index first, Index last) {
            const py::gil_scoped_acquire with_gil;
            held = rows_of(first, last);
            expect(held.dtype().equal(dtype) && held.ndim() == 2 && held.shape(0) == last - first,
                   "image: expected the rows asked for, in the dtype told");
            return band_view<T>(held, first, height);
        };
        {
            py::gil_scoped_release without_gil;
            width = refine_columns(bands, height, tile, centres, flags, sigma, spacing, furthest, n_threads, out,
                                   heights, scatter);
        }
        return py::make_tuple(positions, amplitudes, deviations, width);
    });
}

}  // namespace

void define_columns(py::module_& module) {
    module.def("peak_response", &response, py::arg("image"), py::arg("sigma"), py::arg("n_threads"),
               "Minus sigma^2 times the Laplacian of the Gaussian-blurred image, (H, W).");
    module.def("local_maxima", &maxima, py::arg("response"), py::arg("n_threads"), py::arg("top") = 0,
               "Refined positions (K, 2) and heights (K,) of the local maxima above 0, the first row being `top`.");
    module.def("sample_image", &sample, py::arg("image"), py::arg("positions").noconvert(), py::arg("n_threads"),
               py::arg("top") = 0, py::arg("rows") = 0,
               "Values (N,) between pixels at positions (N, 2); of an image of so many rows, where given, the array "
               "holds those from `top` on.");
    module.def("blur_boards", &blur, py::arg("boards").noconvert(), py::arg("sigma"), py::arg("n_threads"),
               "Images (n, H, W) blurred by a Gaussian, 0 outside.");

    py::class_<Points>(module, "Points", "Points (N, 2) sorted into cells, to find the nearest.", py::module_local())
        .def(py::init<DoubleArray>(), py::arg("positions").noconvert())
        .def("within", &Points::within, py::arg("sites").noconvert(), py::arg("reach"), py::arg("n_threads"),
             "Distance and number of the nearest point within reach, (S,) each; infinity and -1 where there is none.")
        .def("nearest", &Points::nearest, py::arg("sites").noconvert(), py::arg("k"), py::arg("n_threads"),
             "Distances and numbers of the k nearest points, (S, k) each.")
        .def("levels", &Points::levels, py::arg("heights").noconvert(), py::arg("k"), py::arg("percentile"),
             py::arg("n_threads"), "Percentile of the heights of the k points nearest to each point, (N,).")
        .def("snap", &Points::snap, py::arg("strength").noconvert(), py::arg("sites").noconvert(), py::arg("reach"),
             py::arg("n_threads"), "Positions (S, 2) of the points at sites and how much each counts, (S,).")
        .def("grow", &Points::grow, py::arg("strength").noconvert(), py::arg("seed"), py::arg("basis").noconvert(),
             py::arg("reach"), py::arg("height"), py::arg("width"), py::arg("n_threads"),
             "Indices and positions (S, 2), support, lopsided and measured (S,) of the sites reached from a point.");

    module.def("tile_spectra", &spectra, py::arg("image"), py::arg("corners").noconvert(), py::arg("rows"),
               py::arg("columns"), py::arg("pad"), py::arg("centre"), py::arg("sigma"), py::arg("n_threads"),
               "Blurred power spectra (n, 2 c, 2 c) of tiles, and whether each tile varies, (n,).");
    module.def("spoke_scores", &scores, py::arg("power").noconvert(), py::arg("pad"), py::arg("radius").noconvert(),
               py::arg("angle").noconvert(), py::arg("n_threads"), "How well hexagons of spots fit, (n, R, A).");
    module.def("hexagon_spots", &spots, py::arg("power").noconvert(), py::arg("pad"), py::arg("radius").noconvert(),
               py::arg("angle").noconvert(), py::arg("n_threads"), "Centres of three first-order spots, (n, 3, 2).");
    module.def("refine_columns", &refine, py::arg("rows_of"), py::arg("height"), py::arg("tile"), py::arg("dtype"),
               py::arg("start").noconvert(), py::arg("movable").noconvert(), py::arg("sigma"), py::arg("spacing"),
               py::arg("furthest"), py::arg("n_threads"),
               "Positions (N, 2), amplitudes and deviations (N,) and the common width of Gaussian columns.");
}

}  // namespace contextem::bindings
