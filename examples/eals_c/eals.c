/* Element-wise ALS (He, Zhang, Kan, Chua 2016): a compiled solver in plain C, which needs only alscore.h. */
#include <Python.h>

#include "alscore.h"

#define NAME solve_f32
#define ROW als_row_f32
#define REAL float
#include "eals_row.inc.h"
#undef NAME
#undef ROW
#undef REAL

#define NAME solve_f64
#define ROW als_row_f64
#define REAL double
#include "eals_row.inc.h"

static size_t workspace(const void *params, int64_t k, int64_t n_max, size_t real_size)
{
    (void)params, (void)k;
    return (size_t)n_max * real_size;
}

static als_solver solver = {
    .version = ALSCORE_SOLVER_VERSION,
    .flags = ALSCORE_WARM_START,
    .workspace = workspace,
    .solve_f32 = solve_f32,
    .solve_f64 = solve_f64,
};

static PyObject *capsule(PyObject *module, PyObject *nothing)
{
    (void)module, (void)nothing;
    return PyCapsule_New(&solver, ALSCORE_SOLVER_CAPSULE, NULL);
}

static PyMethodDef methods[] = {
    {"capsule", capsule, METH_NOARGS, "capsule()\n--\n\nThe solver, as alscore.h describes it."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "alscore_eals",
    .m_doc = "Element-wise ALS for alscore: solver=\"eals\".",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_alscore_eals(void) { return PyModuleDef_Init(&definition); }
