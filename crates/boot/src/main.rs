//! The kernel ELF: the low layer and the kernel, linked at last.
#![no_std]
#![no_main]

occlum_enclave::entry! {
    main = occlum_kernel::main,
    vcpu_main = occlum_kernel::vcpu_main,
    task_exit = occlum_kernel::task_exit
}
