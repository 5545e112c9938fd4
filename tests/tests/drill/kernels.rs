//! Faults of kernels: plans that are changed before code is made of them.

use rabot_kernel::{KernelDesc, Plan, Size, Staged, Work};

/// Makes a kernel wrong; false if there is nothing to make wrong.
pub type KernelFault = fn(&mut KernelDesc) -> bool;

/// The faults of kernels, by name.
pub const KERNELS: [(&str, KernelFault); 6] = [
    ("wrong extent", |kernel| match kernel {
        KernelDesc::Loop(kernel) => kernel.outer.last_mut().is_some_and(less),
        KernelDesc::Contract(kernel) => less(&mut kernel.k),
        KernelDesc::Composite(_) => false,
    }),
    ("wrong tail", |kernel| match kernel {
        KernelDesc::Loop(kernel) => {
            kernel.stages.last_mut().and_then(|stage| stage.inner.last_mut()).is_some_and(less)
        }
        KernelDesc::Contract(kernel) => less(&mut kernel.n),
        KernelDesc::Composite(_) => false,
    }),
    ("wrong stride of a store", |kernel| match kernel {
        KernelDesc::Loop(kernel) => {
            let store = kernel.stages.iter_mut().flat_map(|stage| stage.stores.last_mut()).last();
            store.is_some_and(|store| store.access.strides.iter_mut().any(|(_, size)| less(size)))
        }
        KernelDesc::Contract(kernel) => kernel
            .stores
            .last_mut()
            .is_some_and(|store| store.access.strides.iter_mut().any(|(_, size)| less(size))),
        KernelDesc::Composite(_) => false,
    }),
    ("reduction left out", |kernel| match kernel {
        KernelDesc::Loop(kernel) => kernel
            .stages
            .first_mut()
            .is_some_and(|stage| !stage.reductions.is_empty() && stage.inner.last_mut().is_some_and(less)),
        _ => false,
    }),
    ("missing rows", |kernel| match kernel {
        KernelDesc::Contract(kernel) => less(&mut kernel.m),
        _ => false,
    }),
    ("short sum", |kernel| match kernel {
        KernelDesc::Contract(kernel) => less(&mut kernel.k) && less(&mut kernel.k),
        _ => false,
    }),
];

fn less(size: &mut Size) -> bool {
    match size {
        Size::Const(number) if *number > 1 => {
            *number -= 1;
            true
        }
        _ => false,
    }
}

/// The plan of a program that is one.
pub fn plan(staged: &mut Staged) -> Option<&mut Plan> {
    staged.stages.iter_mut().find_map(|stage| match &mut stage.work {
        Work::Kernels(plan) => Some(&mut **plan),
        Work::Host(_) => None,
    })
}
